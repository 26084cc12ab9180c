"""The production validation: a small capture goes the way that everybody's go, and what comes out is looked at."""
