"""How good a trained run is: predictions on images whose truth is known, metrics, results, and the report."""
