"""What rules that classify images share: the training loop and the verbs eval, analyze and render."""
