"""The HTTP service: recognition, features and timelines for many clients at once."""
