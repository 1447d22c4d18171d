-- Damaged tables and B-tree indexes of this database, one line each. Run as the superuser, by ../verification.py and by
-- compose/backup/restore_check.py. https://www.postgresql.org/docs/current/amcheck.html
CREATE EXTENSION IF NOT EXISTS amcheck;
CREATE OR REPLACE FUNCTION pg_temp.damage() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  object record;
  problem record;
BEGIN
  FOR object IN SELECT oid, oid::regclass AS name FROM pg_class
    WHERE relkind IN ('r', 'm', 't') AND relpersistence = 'p'
  LOOP
    BEGIN
      FOR problem IN SELECT blkno, msg FROM verify_heapam(relation => object.oid) LOOP
        RETURN NEXT format('%s, page %s: %s', object.name, problem.blkno, problem.msg);
      END LOOP;
    EXCEPTION WHEN OTHERS THEN RETURN NEXT format('%s: %s', object.name, SQLERRM);
    END;
  END LOOP;
  FOR object IN SELECT i.oid, i.oid::regclass AS name FROM pg_index JOIN pg_class i ON i.oid = indexrelid
    JOIN pg_am a ON a.oid = i.relam
    WHERE amname = 'btree' AND i.relkind = 'i' AND i.relpersistence = 'p' AND indisready AND indisvalid
  LOOP
    BEGIN
      PERFORM bt_index_check(index => object.oid::regclass, heapallindexed => true);
    EXCEPTION WHEN OTHERS THEN RETURN NEXT format('%s: %s', object.name, SQLERRM);
    END;
  END LOOP;
END $$;
SELECT current_database() || '.' || problem FROM pg_temp.damage() AS problem;
