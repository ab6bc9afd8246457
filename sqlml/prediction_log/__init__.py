"""The prediction log and the feedback on disk.

worker → requests, folded → raw: a stream of batches → settle → files: Parquet, merged, bounded → folders: who reads finds them
"""

from sqlml.prediction_log.columns import FEEDBACK, PREDICTIONS, feedback_schema, predictions_schema, relation_schema
from sqlml.prediction_log.files import drop_oldest, may_merge, merge_parts, write_part
from sqlml.prediction_log.folders import feedback_files, feedback_folder, folder_name, prediction_files, predictions_folder
from sqlml.prediction_log.raw import RawFile, merge_settled, raw_bytes, settle, settle_one
from sqlml.prediction_log.requests import NumberRows, Requests, fold

__all__ = [
    "FEEDBACK",
    "PREDICTIONS",
    "NumberRows",
    "RawFile",
    "Requests",
    "drop_oldest",
    "feedback_files",
    "feedback_folder",
    "feedback_schema",
    "fold",
    "folder_name",
    "may_merge",
    "merge_parts",
    "merge_settled",
    "prediction_files",
    "predictions_folder",
    "predictions_schema",
    "raw_bytes",
    "relation_schema",
    "settle",
    "settle_one",
    "write_part",
]
