"""Pictures of a study: drawn by Matplotlib, titled with what is seen."""
