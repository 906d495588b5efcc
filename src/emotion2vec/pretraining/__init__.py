"""Pre-training by online distillation: configuration, masks, data, teacher, loop."""
