"""What is seen, and in which words: settings, the gap, two trials, influence."""
