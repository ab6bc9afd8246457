"""What the suite may ask for beyond what it asks of every database."""

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements


class Requirements(SuiteRequirements):
    """Open: it works here.  Closed: it does not, for the reason beside it."""

    temp_table_reflection = temp_table_names = temporary_views = exclusions.open()
    temp_table_reflect_indexes = exclusions.closed()  # the catalog has none of temporary tables
    views = view_reflection = view_column_reflection = exclusions.open()
    cross_schema_fk_reflection = exclusions.closed()  # a foreign key stays within its schema
    distinct_on = exclusions.open()
    uuid_data_type = exclusions.open()
    array_type = exclusions.open()
    json_type = exclusions.open()
    window_functions = ctes = ctes_with_update_delete = ctes_on_dml = exclusions.open()
    regexp_match = regexp_replace = exclusions.open()
    precision_numerics_many_significant_digits = exclusions.open()
    datetime_timezone = time_timezone = datetime_historic = date_historic = exclusions.open()
    comment_reflection = comment_reflection_full_unicode = exclusions.open()
    update_from = delete_from = exclusions.open()
    unicode_ddl = exclusions.open()
    temp_table_comment_reflection = exclusions.closed()
