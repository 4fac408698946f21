"""The page: a read-only view of all portfolios in the browser, served by each worker and by `himari dashboard`."""
