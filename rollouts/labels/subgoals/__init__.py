"""Subgoals for any task: files of them, generators that write them, and the rules that they must keep."""
