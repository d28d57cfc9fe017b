"""The pages, one module each: the data of a page, and the route that renders it."""
