"""What a run tells: report.json, report.html, the model card, certificates of folds, the vocabulary's figure."""
