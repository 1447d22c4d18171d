-- The figures of Airflow's database that a backup records and a restore must have: the revision of its schema, and the
-- rows of what an operator would miss. Other tables hold what the next minutes create again.
SELECT json_build_object(
  'revision',
  CASE WHEN to_regclass('alembic_version') IS NOT NULL THEN
    (xpath('/row/version_num/text()', query_to_xml('SELECT version_num FROM alembic_version', false, true, '')))[1]::text
  END,
  'rows',
  coalesce((
    SELECT json_object_agg(
      name, (xpath('/row/count/text()', query_to_xml(format('SELECT count(*) FROM %I', name), false, true, '')))[1]::text::bigint
    )
    FROM unnest(ARRAY[
      'ab_role', 'ab_user', 'asset', 'asset_event', 'backfill', 'connection', 'dag', 'dag_run', 'dag_version', 'log',
      'serialized_dag', 'slot_pool', 'task_instance', 'task_instance_history', 'variable', 'xcom'
    ]) AS name
    WHERE to_regclass(name) IS NOT NULL
  ), '{}')
);
