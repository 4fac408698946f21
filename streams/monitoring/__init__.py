"""What a worker shows of itself: metrics, diagnostics and pages."""
