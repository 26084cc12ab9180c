"""What a run measured: report.json and report.html."""
