"""What leaves a row for Storage, how it is read again, and the files a task is given."""
