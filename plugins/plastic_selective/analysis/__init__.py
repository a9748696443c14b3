"""What is measured on a trained run, its figures and its film."""
