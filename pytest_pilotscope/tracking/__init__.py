"""Runs, records and models in MLflow; no other room imports mlflow."""
