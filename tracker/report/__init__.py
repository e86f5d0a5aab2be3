"""A report of a track: one HTML file that shows the clip, what was found in it, and what went wrong where."""

from tracker.report.writing import FILE_NAME as FILE_NAME
from tracker.report.writing import write_report as write_report
