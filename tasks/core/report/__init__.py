"""Reports of what a run measured: report.html, its drawings, and Markdown for Prefect's pages."""
