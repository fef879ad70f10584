"""JSON and YAML read strictly; every mistake is told with its place."""
