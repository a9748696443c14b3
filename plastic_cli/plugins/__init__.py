"""What a plugin registers, the hooks that it may implement, and how plugins are found."""
