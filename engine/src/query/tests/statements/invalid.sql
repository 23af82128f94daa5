# Statements that are no SQL of DuckDB: 400, and never run.

(DELETE FROM events)
FROM (COPY events TO '/tmp/out.csv')
SELECT * FROM (DELETE FROM hot_1 RETURNING *)
SELECT (DELETE FROM hot_1 RETURNING 1)
SELECT * FROM (INSERT INTO hot_1 SELECT * FROM events RETURNING *)
EXECUTE IMMEDIATE 'DROP VIEW events'
WITH RECURSIVE x AS (DELETE FROM hot_1 RETURNING *) FROM x
WITH x AS (MERGE INTO hot_1 USING events ON true WHEN MATCHED THEN DELETE RETURNING *) FROM x
SELECT * FROM ['/etc/passwd']
SELECT * FROM events PIVOT (count(*) FOR tenant IN (SELECT tenant FROM hot_1))
SELECT * FROM events; SELECT (
SELECT 1 INTO OUTFILE '/tmp/out'
SELECT * FROM events WHERE
 SELECT 1 FROM
SELECT * FROM events EXECUTE p
'; DROP VIEW events; --
SELECT 'unended
SELECT "unended FROM events
SELECT /* unended
SELECT $$unended
LOAD DATA INFILE '/etc/passwd'
GRANT ALL ON events TO x
DO $$ BEGIN END $$
