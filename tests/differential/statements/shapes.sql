-- UNION: tags survive, also of NULL
SELECT id, u, union_tag(u), u IS NULL FROM shapes;
SELECT id, u, union_tag(u) FROM shapes ORDER BY u, id;
SELECT id, u, union_tag(u) FROM shapes ORDER BY u DESC NULLS FIRST, id DESC LIMIT 30;
SELECT u, union_tag(u), count(*), min(id) FROM shapes GROUP BY u;
SELECT DISTINCT u, union_tag(u), u IS NULL FROM shapes;
SELECT union_tag(u), max(u), min(u), count(u) FROM shapes GROUP BY union_tag(u);
SELECT max(u), min(u), union_tag(max(u)) FROM shapes;
SELECT first(u ORDER BY id), last(u ORDER BY id), union_tag(first(u ORDER BY id DESC)) FROM shapes;
SELECT a.id, b.id, a.u, union_tag(b.u) FROM shapes AS a JOIN shapes AS b ON a.u = b.u AND a.id < b.id;
SELECT a.id, b.id, union_tag(a.u) FROM shapes AS a JOIN shapes AS b ON a.u IS NOT DISTINCT FROM b.u WHERE a.id < -10;
SELECT a.id, b.u, union_tag(b.u) FROM shapes AS a LEFT JOIN shapes AS b ON a.id = b.id + 30;
SELECT id FROM shapes WHERE u IN (SELECT u FROM shapes WHERE id > 30);
SELECT u, union_tag(u) FROM shapes EXCEPT SELECT u, union_tag(u) FROM shapes WHERE id < 10;
SELECT u FROM shapes UNION SELECT union_value(num := 3) UNION ALL SELECT u FROM shapes WHERE id < 0;
SELECT id, union_extract(u, 'num'), u.str, union_tag(lag(u) OVER (PARTITION BY id % 4 ORDER BY id)) FROM shapes;
SELECT id, union_tag(max(u) OVER (ORDER BY id)) FROM shapes;
SELECT pair, arg_max(u, id), union_tag(arg_min(u, id)) FROM shapes GROUP BY pair;
SELECT count(DISTINCT u), count(u) FROM shapes;
SELECT id % 3, list(u ORDER BY id), list(union_tag(u) ORDER BY id) FROM shapes GROUP BY id % 3;
SELECT k, list_transform(l, lambda x: union_tag(x)), l FROM (SELECT id % 4 AS k, list(u ORDER BY id) AS l FROM shapes GROUP BY k) ORDER BY k DESC;
SELECT k, s, union_tag(s.v) FROM (SELECT id % 2 AS k, max({'n': id % 5, 'v': u}) AS s FROM shapes GROUP BY k);
SELECT k, map_values(m), map_keys(m) FROM (SELECT id % 3 AS k, map_from_entries(list({'k': id, 'v': u} ORDER BY id)) AS m FROM shapes GROUP BY k) ORDER BY k;
WITH c AS MATERIALIZED (SELECT u, count(*) AS n FROM shapes GROUP BY u) SELECT a.u, union_tag(b.u), a.n FROM c AS a JOIN c AS b ON a.n = b.n;
-- tuples: structs without names
SELECT id, pair, typeof(pair) FROM shapes ORDER BY id;
SELECT pair, count(*) FROM shapes GROUP BY pair;
SELECT pair, id FROM shapes ORDER BY pair DESC NULLS LAST, id;
SELECT a.id, b.pair FROM shapes AS a JOIN shapes AS b ON a.pair = b.pair AND a.id + 12 = b.id;
SELECT DISTINCT row(id % 3, pair) FROM shapes;
SELECT id % 5, max(row(id % 7, u)), list(row(id, pair) ORDER BY id) FROM shapes GROUP BY id % 5;
SELECT count(*), (id % 2, id % 3) AS k FROM shapes GROUP BY k ORDER BY k;
SELECT id, row(), [row()], {'a': row(), 'b': row(row(), id)} FROM shapes;
-- VARIANT: where no row has to move
SELECT id, {'a': id, 'b': [id, NULL]}::VARIANT AS v FROM shapes;
SELECT id, (id::VARIANT)::VARCHAR FROM shapes ORDER BY id;
SELECT (pair::VARIANT)::VARCHAR AS v, count(*) FROM shapes GROUP BY v;
