"""What is handed out: the wheel, the head of the single executable file, the files for operating, the version."""
