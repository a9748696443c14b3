"""The toolkit's own commands, and the verbs that carry a rule's functions out."""
