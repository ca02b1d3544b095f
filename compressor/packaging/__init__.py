"""From a trained student to a package that has proved itself, and the baselines that stand beside it."""
