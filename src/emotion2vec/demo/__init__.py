"""The page: record or drop a file, see and hear which emotion is when, compare two models."""
