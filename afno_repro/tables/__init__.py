"""What is shown: tables as views on records, the paper's claims, reports and figures."""
