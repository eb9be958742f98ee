"""
Statements written by hand over the tables of `typed_schema`, of kinds that hardly come up at random.

Values that an outer or anti join made NULL, used above it, are the reason for this list: only such statements have found a library that
did not make them NULL.
"""

FORMS = {
    # values computed below an outer join
    "coalesce below a left join": "SELECT count(*) FROM a LEFT JOIN (SELECT b.id, coalesce(b.i4, 1) AS v FROM b) AS s "
    "ON a.fk = s.id WHERE s.v = 1",
    "constant below a left join": "SELECT count(*) FROM a LEFT JOIN (SELECT b.id, 7 AS v FROM b WHERE b.i2 > 0) AS s "
    "ON a.fk = s.id WHERE s.v IS NULL",
    "computed key above a left join": "SELECT count(*) FROM a LEFT JOIN (SELECT b.id, coalesce(b.i4, 1) AS v FROM b) AS s ON a.fk = s.id "
    "JOIN c ON c.i4 = s.v",
    "computed value used twice": "SELECT count(*) FROM a LEFT JOIN (SELECT b.id, b.i4 IS NULL AS v FROM b) AS s ON a.fk = s.id "
    "LEFT JOIN c ON c.bo = s.v WHERE s.v IS NOT FALSE",
    "two outer joins above a value": "SELECT count(*) FROM d LEFT JOIN (a LEFT JOIN (SELECT b.id, coalesce(b.i2, 0) AS v "
    "FROM b) AS s ON a.fk = s.id) "
    "ON d.fk = a.id WHERE coalesce(s.v, 3) = 3",
    "value of a full join": "SELECT count(*) FROM a FULL JOIN (SELECT b.id, coalesce(b.i2, 2) AS v FROM b) AS s "
    "ON a.id = s.id WHERE s.v IS NULL OR s.v = 2",
    "value of a join of two": "SELECT count(*) FROM d LEFT JOIN (SELECT a.id, coalesce(a.i2, b.i2) AS v FROM a JOIN b ON a.id = b.fk) AS s "
    "ON d.fk = s.id WHERE s.v IS NULL OR s.v = d.i2",
    "value in a lateral subquery": "SELECT count(*) FROM a LEFT JOIN LATERAL (SELECT b.id, coalesce(a.i4, b.i4) AS v "
    "FROM b) AS s ON a.fk = s.id "
    "WHERE coalesce(s.v, 1) = 1",
    "value compared in ON above": "SELECT count(*) FROM a LEFT JOIN (SELECT b.id, coalesce(b.tx, 'k0') AS v FROM b) AS s ON a.fk = s.id "
    "LEFT JOIN c ON c.tx = s.v AND s.v <> 'k1' JOIN d ON d.id = a.id",
    # values that an anti join makes NULL
    "value above an anti join": "SELECT count(*) FROM a LEFT JOIN b ON a.id = b.fk WHERE b.fk IS NULL AND coalesce(b.i4, a.i4) = 1",
    "join above an anti join": "SELECT count(*) FROM a LEFT JOIN b ON a.id = b.fk JOIN c ON c.i4 = coalesce(b.i4, a.i4) WHERE b.fk IS NULL",
    "anti join below an outer join": "SELECT count(*) FROM d LEFT JOIN (a LEFT JOIN b ON a.id = b.fk) ON d.fk = a.id "
    "WHERE b.fk IS NULL AND coalesce(b.i2, a.i2, d.i2) > 0",
    "computed value above an anti join": "SELECT count(*) FROM a LEFT JOIN (SELECT b.fk, coalesce(b.i4, 1) AS v FROM b) AS s "
    "ON a.id = s.fk "
    "WHERE s.fk IS NULL AND coalesce(s.v, 2) = 2",
    # outer joins
    "using": "SELECT count(*) FROM a JOIN b USING (i4, i2) LEFT JOIN c USING (i4) WHERE i4 < 3",
    "full join using": "SELECT count(*) FROM a FULL JOIN b USING (uk) WHERE uk > 5",
    "full join using and a join above": "SELECT count(*) FROM (a FULL JOIN b USING (uk)) AS f JOIN c ON c.id = f.uk",
    "natural": "SELECT count(*) FROM (SELECT id, i4 FROM a) AS m NATURAL JOIN (SELECT id, i4 FROM d) AS n",
    "constantly false": "SELECT count(*) FROM a LEFT JOIN b ON false JOIN c ON c.id = a.id",
    "constantly false by arithmetic": "SELECT count(*) FROM a LEFT JOIN (b JOIN d ON b.id = d.fk) ON 1 = 2 LEFT JOIN c ON c.id = b.id",
    "contradiction": "SELECT count(*) FROM a JOIN b ON a.id = b.fk WHERE a.i4 = 1 AND a.i4 = 2",
    "value of what is empty": "SELECT count(*) FROM c LEFT JOIN (SELECT 2 FROM a) AS s (v) ON false "
    "JOIN p ON p.uk = c.uk WHERE coalesce(s.v, 3) = 2",
    "empty side": "SELECT count(*) FROM a LEFT JOIN e ON a.id = e.id FULL JOIN b ON b.id = e.fk",
    "empty subquery": "SELECT count(*) FROM a LEFT JOIN (SELECT * FROM b WHERE false) AS n ON a.id = n.id JOIN c ON c.id = a.id",
    "filters above and below": "SELECT count(*) FROM a LEFT JOIN b ON a.id = b.fk AND a.i4 = 1 AND b.i4 > 0 WHERE a.i2 = 0 "
    "AND (b.i2 = 0 OR b.i2 IS NULL)",
    "full join of filtered sides": "SELECT count(*) FROM (SELECT * FROM a WHERE i4 = 1) AS l FULL JOIN (SELECT * FROM b "
    "WHERE i2 = 0) AS r ON l.id = r.fk "
    "FULL JOIN c ON c.id = r.id",
    "constant through a left join": "SELECT count(*) FROM a LEFT JOIN b ON a.i4 = b.i4 LEFT JOIN c ON b.i4 = c.i4 WHERE a.i4 = 1",
    "constant through a full join": "SELECT count(*) FROM a FULL JOIN b USING (i4) WHERE i4 = 1",
    "reduced by a join above": "SELECT count(*) FROM a LEFT JOIN b ON a.id = b.fk JOIN c ON c.fk = b.id",
    "removed": "SELECT count(*) FROM a LEFT JOIN b ON a.fk = b.id WHERE a.i4 = 1",
    # EXISTS, IN, ANY and ALL
    "exists on two keys": "SELECT count(*) FROM a, c WHERE EXISTS (SELECT FROM b WHERE b.i4 = a.i4 AND b.i2 = c.i2) AND a.fk = c.id",
    "exists on keys of two relations without a join": "SELECT count(*) FROM a, c WHERE EXISTS (SELECT FROM b WHERE b.i4 = a.i4 "
    "AND b.tx = c.tx)",
    "exists in exists": "SELECT count(*) FROM a WHERE EXISTS (SELECT FROM b WHERE b.fk = a.id AND NOT EXISTS (SELECT FROM c "
    "WHERE c.fk = b.id AND c.i4 = a.i4))",
    "not exists of a join": "SELECT count(*) FROM a WHERE NOT EXISTS (SELECT FROM b JOIN c ON c.fk = b.id WHERE b.fk = a.id)",
    "in over groups": "SELECT count(*) FROM a JOIN d ON d.fk = a.id WHERE a.i4 IN (SELECT b.i4 FROM b GROUP BY b.i4 HAVING count(*) > 2)",
    "in over distinct": "SELECT count(*) FROM a WHERE (a.i4, a.i2) IN (SELECT DISTINCT b.i4, b.i2 FROM b JOIN c ON c.fk = b.id)",
    "in over a limit": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b ORDER BY b.id LIMIT 3)",
    "in over a limit and an offset": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b ORDER BY b.id DESC OFFSET 2 LIMIT 4)",
    "in over a limit of a join": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b LEFT JOIN c ON c.fk = b.id "
    "ORDER BY b.id, c.id NULLS FIRST LIMIT 7)",
    "in over a limit above a semi join": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b WHERE EXISTS (SELECT FROM d "
    "WHERE d.i4 = b.i4) AND NOT EXISTS (SELECT FROM c WHERE c.fk = b.id) ORDER BY b.id DESC LIMIT 5)",
    "in over a limit above joins by keys": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT d.i4 FROM b JOIN c ON c.id = b.fk "
    "JOIN d ON d.id = c.fk ORDER BY b.id LIMIT 4)",
    "in over a limit above a join by no key": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT c.i4 FROM b JOIN c ON c.i2 = b.i2 "
    "ORDER BY b.id LIMIT 4)",
    "in over a limit of groups": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b GROUP BY b.i4 ORDER BY count(*), b.i4 LIMIT 2)",
    "in over a limit of a union": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b UNION SELECT c.i2 FROM c ORDER BY 1 LIMIT 2)",
    "in over a limit with ties": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b ORDER BY b.i2 FETCH FIRST 3 ROWS WITH TIES)",
    "in over a limit that nothing decides": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b ORDER BY b.i2 LIMIT 3)",
    "in over a limit of one of two": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i2 FROM b JOIN c ON c.i4 = b.i4 "
    "ORDER BY b.id LIMIT 3)",
    "in over a limit that is a subquery": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b ORDER BY b.id "
    "LIMIT (SELECT max(c.i4) FROM c))",
    "in over no limit": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b LIMIT ALL)",
    "in over a limit of nothing": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b LIMIT 0)",
    "a subquery behind OFFSET 0": "SELECT count(*) FROM a JOIN (SELECT b.id, b.fk FROM b WHERE b.i4 = 1 OFFSET 0) AS s ON s.fk = a.id",
    "in over distinct on": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT DISTINCT ON (b.i2) b.i4 FROM b ORDER BY b.i2, b.id)",
    "in over a limit of distinct on": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT DISTINCT ON (b.i2) b.i4 FROM b "
    "ORDER BY b.i2, b.id LIMIT 2)",
    "in over a limit of distinct rows with a constant": "SELECT count(*) FROM a WHERE (a.i4, a.i2) IN (SELECT DISTINCT b.i4, 1 FROM b "
    "ORDER BY 2, 1 LIMIT 3)",
    "in over rows of a function": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT generate_series(1, b.i2) FROM b)",
    "exists behind an offset": "SELECT count(*) FROM a WHERE EXISTS (SELECT FROM b WHERE b.i2 = a.i2 OFFSET 3)",
    "any of an array of a subquery": "SELECT count(*) FROM a WHERE a.i4 = ANY ((SELECT array_agg(b.i4) FROM b WHERE b.i2 = 1)::integer[])",
    "any of a slice of an array of a subquery": "SELECT count(*) FROM a WHERE a.i4 = ANY ((SELECT array_agg(b.i4 ORDER BY b.id) "
    "FROM b WHERE b.i2 = 1)[1:2])",
    "in over a correlated union of all": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b WHERE b.id = a.id "
    "UNION ALL SELECT c.i4 FROM c WHERE c.id = a.id)",
    "in over a union": "SELECT count(*) FROM a JOIN d ON d.fk = a.id WHERE a.i4 IN (SELECT b.i4 FROM b UNION SELECT c.i4 + 1 FROM c)",
    "in over a union of all": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b UNION ALL SELECT c.i4 FROM c)",
    "in over a correlated subquery": "SELECT count(*) FROM a WHERE a.i4 IN (SELECT b.i4 FROM b WHERE b.i2 = a.i2)",
    "in of a constant": "SELECT count(*) FROM a JOIN d ON d.fk = a.id WHERE 1 IN (SELECT b.i4 FROM b WHERE b.id = a.fk)",
    "in below an outer join": "SELECT count(*) FROM a LEFT JOIN b ON a.id = b.fk AND b.i4 IN (SELECT c.i4 FROM c WHERE c.i2 = 0)",
    "in below or": "SELECT count(*) FROM a WHERE a.i4 = 2 OR a.i4 IN (SELECT b.i4 FROM b WHERE b.i2 = 1)",
    "not in with nulls": "SELECT count(*) FROM a WHERE a.i4 NOT IN (SELECT b.i4 FROM b WHERE b.i2 = 1)",
    "not in without nulls": "SELECT count(*) FROM a JOIN d ON d.fk = a.id WHERE a.id NOT IN (SELECT b.fk FROM b WHERE b.fk IS NOT NULL)",
    "all with nulls": "SELECT count(*) FROM a WHERE a.i4 >= ALL (SELECT b.i4 FROM b WHERE b.i2 = a.i2)",
    "any with nulls": "SELECT count(*) FROM a WHERE a.i4 > ANY (SELECT b.i4 FROM b WHERE b.i2 = 3)",
    "all over nothing": "SELECT count(*) FROM a WHERE a.i4 = ALL (SELECT e.i4 FROM e)",
    "a single value": "SELECT count(*) FROM a JOIN d ON d.fk = a.id WHERE a.i4 = (SELECT min(b.i4) FROM b WHERE b.i2 = a.i2)",
    "a single value of its own": "SELECT count(*) FROM a WHERE a.i4 > (SELECT avg(b.i4) FROM b JOIN c ON c.fk = b.id)",
    "rows of three": "SELECT count(*) FROM a, b WHERE (a.i4, a.i2, a.fk) = (b.i4, b.i2, b.id) AND (a.i4, a.i2) < (5, 1)",
    "row in rows": "SELECT count(*) FROM a WHERE (a.i4, a.i2) IN ((0, 1), (1, 0), (0, 0), (NULL, 1))",
    # OR and constants
    "or over three": "SELECT count(*) FROM a, b, c WHERE a.id = b.fk AND b.id = c.fk AND ((a.i4 = 0 AND b.i4 = 0) OR (a.i4 = 1 "
    "AND b.i2 = 1 AND c.i2 > 0))",
    "or above an outer join": "SELECT count(*) FROM a LEFT JOIN b ON a.id = b.fk WHERE (a.i4 = 0 AND b.i4 = 0) OR (a.i4 = 1 "
    "AND b.i4 IS NULL)",
    "or that is hardly a filter": "SELECT count(*) FROM a JOIN b ON b.fk = a.id WHERE (a.id > 1 AND b.i4 = 1) OR (a.id > 2 AND b.i4 = 0)",
    "constant through three": "SELECT count(*) FROM a, b, c WHERE a.i4 = b.i8 AND b.i8 = c.i2 AND c.i2 = 1 + 0",
    "constant of an expression": "SELECT count(*) FROM a, b WHERE lower(a.tx) = lower(b.tx) AND lower(b.tx) = 'k1'",
    # a column that is compared in two ways
    "as character and as text": "SELECT count(*) FROM a, b, c WHERE a.vc::bpchar = b.vc::bpchar AND a.vc = c.vc AND b.vc < c.vc",
    "a filter in another type": "SELECT count(*) FROM a, b WHERE a.vc::bpchar = a.tx::bpchar AND a.vc = b.vc AND a.tx = b.vc",
    # self-joins on keys
    "self-join on the key": "SELECT count(*) FROM a AS m JOIN a AS n ON m.id = n.id JOIN b ON b.fk = n.id WHERE m.i4 = 0 AND n.i2 >= 0",
    "self-join on a nullable key": "SELECT count(*) FROM a AS m, a AS n, c WHERE m.uk = n.uk AND c.id = n.fk AND m.i4 < 4",
    "self-join below exists": "SELECT count(*) FROM b WHERE EXISTS (SELECT FROM a AS m JOIN a AS n ON m.id = n.id "
    "WHERE m.id = b.fk AND n.i4 > 0)",
    # LATERAL, functions, VALUES, WITH, views
    "lateral limit": "SELECT count(*) FROM a, LATERAL (SELECT b.id FROM b WHERE b.i4 = a.i4 ORDER BY b.id LIMIT 2) AS l",
    "lateral without columns": "SELECT count(*) FROM a, LATERAL (SELECT FROM b WHERE b.fk = a.id AND EXISTS (SELECT FROM c "
    "WHERE c.id = b.id AND c.i4 = a.i4)) AS l",
    "lateral function": "SELECT count(*) FROM a, LATERAL generate_series(1, a.i2) AS g (n) JOIN c ON c.i4 = n WHERE a.i4 > 0",
    "left join of a lateral function": "SELECT count(*) FROM a LEFT JOIN LATERAL generate_series(1, a.i2) AS g (n) ON n > 1 WHERE a.i4 = 0",
    "function with ordinality": "SELECT count(*) FROM a JOIN unnest(ARRAY[3, 1, 1]) WITH ORDINALITY AS u (v, n) ON a.i4 = u.v "
    "WHERE u.n < 3",
    "values": "SELECT count(*) FROM a JOIN (VALUES (0, 'k0'), (1, 'k1'), (NULL, 'k0')) AS l (n, t) ON a.i4 = l.n AND a.tx = l.t",
    "in values": "SELECT count(*) FROM a WHERE a.i4 IN (VALUES (0), (2))",
    "inlined with": "WITH s AS (SELECT * FROM a WHERE i4 = 0) SELECT count(*) FROM s JOIN b ON b.fk = s.id",
    "materialized with": "WITH s AS MATERIALIZED (SELECT a.id, b.i4 FROM a JOIN b ON b.fk = a.id) SELECT count(*) FROM s JOIN c "
    "ON c.fk = s.id WHERE s.i4 = 0",
    "with used twice": "WITH s AS (SELECT a.id, a.i4 FROM a WHERE a.i2 = 0) SELECT count(*) FROM s AS s1 JOIN s AS s2 "
    "ON s1.i4 = s2.i4 WHERE s1.id < 20",
    "recursive with": "WITH RECURSIVE t AS (SELECT id, fk FROM a WHERE id < 4 UNION SELECT a.id, a.fk FROM t JOIN a ON a.id = t.fk) "
    "SELECT count(*) FROM t JOIN b ON b.fk = t.id",
    "grouped subquery": "SELECT count(*) FROM a JOIN (SELECT b.fk, count(*) AS n FROM b GROUP BY b.fk) AS s ON s.fk = a.id "
    "WHERE s.n > 1 AND a.i4 >= 0",
    "grouped subquery with a condition on its key": "SELECT count(*) FROM (SELECT b.i4, max(b.i2) AS n "
    "FROM b GROUP BY b.i4) AS s JOIN a ON a.i4 = s.i4 "
    "WHERE s.i4 = 1",
    "window": "SELECT count(*) FROM (SELECT id, row_number() OVER (PARTITION BY i4 ORDER BY id) AS n FROM a) AS s JOIN b "
    "ON b.fk = s.id WHERE s.n = 1",
    "union of all in from": "SELECT count(*) FROM (SELECT id, i4 FROM a UNION ALL SELECT id, i4 FROM d) AS u JOIN c "
    "ON c.id = u.id WHERE u.i4 = 0",
    "a condition on a union of all of joins": "SELECT count(*) FROM (SELECT a.i4 FROM a JOIN b ON a.id = b.fk "
    "UNION ALL SELECT b.i4 FROM b JOIN c ON c.fk = b.id UNION ALL SELECT i4 FROM d) AS u WHERE u.i4 = 1",
    "a union of all of nothing": "SELECT count(*) FROM d LEFT JOIN (SELECT 2 FROM a UNION ALL SELECT 3 FROM c) AS u (v) "
    "ON u.v = 1 AND d.i4 = u.v",
    "views": "SELECT count(*) FROM va AS v1 JOIN vb AS v2 ON v1.en = v2.en",
    # names
    "quoted aliases": 'SELECT count(*) FROM a AS "A b", b AS "x""y" WHERE "A b".id = "x""y".fk AND "x""y".i4 = 0',
    "aliases of the library": 'SELECT count(*) FROM a AS "#1", b AS "#u1", c AS "@x" WHERE "#1".id = "#u1".fk '
    'AND "#u1".id = "@x".fk AND "#1".i4 = 0',
    "the library's mark": 'SELECT count(*) FROM a AS "pilotscope ?", b WHERE "pilotscope ?".id = b.fk AND "pilotscope ?".i4 = 0',
    "one alias in two levels": "SELECT count(*) FROM a WHERE a.i4 > (SELECT avg(a.i4) FROM a JOIN b ON b.fk = a.id WHERE a.i2 = 0)",
    "one alias inside and outside": "SELECT count(*) FROM a JOIN b ON b.fk = a.id WHERE EXISTS (SELECT FROM a WHERE a.fk = b.id "
    "AND a.i4 = 0)",
    "reserved names": 'SELECT count(*) FROM a AS "select", b AS "order" WHERE "select".id = "order".fk',
    "renamed columns": "SELECT count(*) FROM a AS r (x, y) JOIN b ON b.fk = r.x WHERE r.y > 3",
    # partitions and inheritance
    "pruned partitions": "SELECT count(*) FROM p JOIN a ON a.id = p.fk WHERE p.id < 11 AND p.i4 >= 0",
    "one partition": "SELECT count(*) FROM p JOIN p1 ON p.id = p1.id WHERE p1.i4 = 0",
    "partitions of both sides": "SELECT count(*) FROM p AS m JOIN p AS n ON m.id = n.id LEFT JOIN c ON c.id = n.fk WHERE m.i4 = 0",
    "exists over partitions": "SELECT count(*) FROM a WHERE EXISTS (SELECT FROM p WHERE p.fk = a.id AND p.i4 = a.i4)",
    "inheritance": "SELECT count(*) FROM h JOIN a ON a.id = h.id LEFT JOIN ONLY h AS o ON o.id = a.fk WHERE h.i4 >= 0",
    # what stands above the joins
    "a parent and only the parent": "SELECT count(*) FROM h AS r6, ONLY h AS r3 LEFT JOIN c AS r4 ON r3.id = r4.id WHERE r3.id = r6.id",
    "group by": "SELECT a.i4, count(*) FROM a JOIN b ON b.fk = a.id GROUP BY a.i4 HAVING count(*) > 1",
    "order and limit": "SELECT a.id FROM a JOIN b ON b.fk = a.id JOIN c ON c.fk = b.id ORDER BY a.i4, a.id LIMIT 3",
    "distinct on": "SELECT DISTINCT ON (a.i4) a.i4, b.id FROM a JOIN b ON b.fk = a.id ORDER BY a.i4, b.id",
    "union": "SELECT a.id FROM a JOIN b ON b.fk = a.id UNION SELECT c.id FROM c WHERE c.i4 = 0",
    "minimum": "SELECT min(a.id) FROM a JOIN b ON b.fk = a.id",
    "a subquery in the targets": "SELECT a.id, (SELECT count(*) FROM b WHERE b.fk = a.id) FROM a WHERE a.i4 = 0",
    "stable condition": "SELECT count(*) FROM a JOIN b ON b.fk = a.id WHERE a.tz < now() AND b.da > 'yesterday'",
    "volatile condition": "SELECT count(*) FROM a JOIN b ON b.fk = a.id WHERE random() >= 0",
    # one row, although its aggregate is not needed, or folds away
    "an unused count": "SELECT count(*) FROM a, (SELECT count(*) AS n FROM b) AS s WHERE a.i4 = 1",
    "an unused maximum beside a join": "SELECT count(*) FROM (SELECT max(b.id) AS n FROM b JOIN c ON c.fk = b.id) AS s JOIN a ON a.id > 3",
    "an unused lateral count": "SELECT count(*) FROM a, LATERAL (SELECT count(*) AS n FROM b WHERE b.fk = a.id) AS s",
    "unused counts in a union": "SELECT count(*) FROM (SELECT count(*) FROM a UNION ALL SELECT count(*) FROM b) AS u, c WHERE c.id < 3",
    "having without aggregates": "SELECT count(*) FROM a, (SELECT 1 AS x FROM b HAVING true) AS s WHERE a.i4 = 1",
    "exists over having": "SELECT count(*) FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.fk = a.id AND b.i4 = 1 HAVING true)",
    "in over having": "SELECT count(*) FROM a WHERE a.id IN (SELECT 3 FROM b WHERE b.i4 = -1 HAVING true)",
    "scalar having": "SELECT count(*) FROM a WHERE a.i4 > (SELECT 0 FROM b WHERE b.id = -1 HAVING true)",
    # whole rows have names of fields
    "row of a subquery": "SELECT count(*) FROM (SELECT i4, count(*) FROM a GROUP BY i4) AS s JOIN b ON b.i4 = s.i4 "
    "WHERE to_jsonb(s)->>'i4' = '1'",
    "row of values": "SELECT count(*) FROM (VALUES (1, 2), (3, 4)) AS v (x, y) JOIN b ON b.i4 = v.x WHERE to_jsonb(v)->>'x' = '1'",
    "row of WITH": "WITH w AS MATERIALIZED (SELECT id, i4 FROM a) SELECT count(*) FROM w, b WHERE to_jsonb(w)->>'i4' = b.i4::text",
    "nulled row": "SELECT count(*) FROM b LEFT JOIN (SELECT id AS k, i4 AS ai FROM a) AS s ON s.k = b.fk WHERE to_jsonb(s)->>'ai' IS NULL",
    "row of a table": "SELECT count(*) FROM a JOIN b ON b.fk = a.id WHERE to_jsonb(a)->>'i4' = '1'",
    "correlated row comparison": "SELECT count(*) FROM a WHERE (a.i4, a.id) < (SELECT b.i4, b.id FROM b WHERE b.id = a.id)",
    "row comparison": "SELECT count(*) FROM a JOIN b ON b.fk = a.id WHERE (a.i4, a.id) < (SELECT c.i4, c.id FROM c WHERE c.id = 2)",
    "the library's own mark": "SELECT count(*) FROM a JOIN b ON b.fk = a.id WHERE a.tx <> '\"pilotscope ?\".s1'",
    "nothing": "SELECT 1",
}
