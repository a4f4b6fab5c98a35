"""Speed beside the peers; ``python -m benchmarks`` runs everything."""
