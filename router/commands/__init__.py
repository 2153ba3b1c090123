"""The commands of `memoryrouter`, one module for each subject."""
