"""Signs of gradient masking: `masking_report`."""

from art_lfr.masking.report import MaskingReport, masking_report

__all__ = ["MaskingReport", "masking_report"]
