"""What makes a stranger's file safe to open: nothing in it runs that is not known."""
