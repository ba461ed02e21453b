"""A running agent, or a program of the project, in the lab, asked as a pod or an operator asks."""
