"""The pages, a module each: what it shows as data, and the route that writes it."""
