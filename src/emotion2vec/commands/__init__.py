"""The subcommands of `emotion2vec`, one file a journey; nothing heavy is imported at their tops."""
