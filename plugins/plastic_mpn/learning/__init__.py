"""How an agent learns: Q-learning, advantage actor-critic, and supervised learning."""
