"""What `plastic analyze` and `plastic render` measure and draw for EGLP."""
