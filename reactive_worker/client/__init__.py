"""What programs do with tasks: submit, wait, follow, answer, steer, files, figures."""
