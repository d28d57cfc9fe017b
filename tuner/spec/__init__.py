"""Study files: what they say, checked; what varies; what makes two of them the same study."""
