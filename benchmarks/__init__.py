"""What jaxdil is measured by: the demo, the cases, the runner and its results."""
