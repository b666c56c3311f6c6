"""HTTP: routes, names, answers, one module for each family of endpoints."""
