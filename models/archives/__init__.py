"""What other products give their users as an export, read as lines of an upload."""
