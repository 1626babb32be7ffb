"""The commands for those who write passes: opt, bisect, passes --explain."""
