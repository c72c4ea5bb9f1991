-- The tables of all statements: NULL, NaN, signed zero, empty text, an empty table, keys of several types, one hot key.
-- What neither Arrow nor Parquet has types for is a view.
CREATE TABLE sales AS
SELECT
    i::INTEGER AS id,
    CASE i % 7 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'north' WHEN 3 THEN 'North' WHEN 4 THEN 'süd' ELSE 'east' END AS region,
    CASE WHEN i % 5 < 3 THEN 1 WHEN i % 11 = 0 THEN NULL ELSE i % 13 END::INTEGER AS product,
    ((i * 7919 % 10007) / 100)::DECIMAL(10, 2) AS amount,
    CASE i % 17 WHEN 0 THEN 'nan'::DOUBLE WHEN 1 THEN -0.0 WHEN 2 THEN 0.0 WHEN 3 THEN NULL WHEN 4 THEN 'inf'::DOUBLE
        ELSE i * 1.25 - 100 END AS score,
    DATE '2024-01-01' + (i * 31 % 90)::INTEGER AS sold,
    TIMESTAMP '2024-01-01 06:00:00' + to_minutes(i * 97 % 20000) AS moment,
    [i % 3, i % 4, NULL] AS tags,
    {'a': i % 4, 'b': 'x' || i % 2} AS extra,
    i % 3 = 0 AS flag
FROM range(400) AS r(i);

CREATE TABLE products AS
SELECT * FROM (VALUES
    (1::BIGINT, 'anvil', 'heavy', 12.500::DECIMAL(8, 3)), (2, 'bolt', 'small', 0.010), (3, 'cart', 'heavy', 99.999),
    (4, NULL, 'small', NULL), (5, 'dynamo', NULL, 45.000), (NULL, 'ghost', 'none', 1.000), (6, 'bolt', 'small', 0.010),
    (100, 'unsold', 'none', 7.250), (7, 'gear', 'small', 3.125), (1, 'anvil (old)', 'heavy', 11.000)
) AS p(product, name, category, price);

CREATE TABLE nothing (id INTEGER, k VARCHAR, v DOUBLE);

CREATE TABLE measures AS
SELECT * FROM (VALUES
    ('nan'::DOUBLE, 1, 'a'), ('nan'::DOUBLE, 2, 'b'), (-0.0, 3, 'a'), (0.0, 4, NULL), (NULL, 5, 'c'), (NULL, 6, 'a'), (1.5, 7, 'b'),
    (1.5, NULL, 'b'), ('inf'::DOUBLE, 8, 'c'), ('-inf'::DOUBLE, 9, ''), (1e300, 10, 'a'), (-1e-300, 11, 'b')
) AS m(k, v, s);

CREATE TABLE rates AS
SELECT TIMESTAMP '2024-01-01 00:00:00' + to_hours(i * 29) AS since, CASE i % 3 WHEN 0 THEN 'north' WHEN 1 THEN 'east' ELSE '' END AS region,
    (i * 37 % 101)::DOUBLE / 8 AS rate
FROM range(36) AS r(i);

CREATE TABLE staff AS
SELECT i::INTEGER AS id, CASE WHEN i > 0 THEN ((i - 1) // 3)::INTEGER END AS boss, 'p' || i AS name, (1000 + i * 37 % 400)::SMALLINT AS pay
FROM range(40) AS r(i);

CREATE TYPE shade AS ENUM ('dark', 'mid', 'light');
CREATE TABLE typed AS
SELECT
    (i - 20)::TINYINT AS tiny, (i * 1000003)::HUGEINT * 1000000007 AS huge, i::UBIGINT AS unsigned, (i / 8)::FLOAT AS real,
    (i * 1.01)::DECIMAL(20, 6) AS wide, (['dark', 'mid', 'light'])[i % 3 + 1]::shade AS shade, ('row ' || i)::BLOB AS raw,
    (DATE '2024-02-27' + i::INTEGER) AS day, TIME '00:00:01' + to_minutes(i) AS clock,
    TIMESTAMPTZ '2024-03-30 22:00:00+00' + to_hours(i) AS instant, to_days(i::INTEGER % 5) + to_minutes(i) AS span,
    ('00000000-0000-0000-0000-0000000000' || lpad((i % 10)::VARCHAR, 2, '0'))::UUID AS ident, (i % 8)::BIT AS bits,
    CASE WHEN i % 4 = 0 THEN NULL ELSE i % 6 END AS maybe
FROM range(60) AS r(i);

CREATE VIEW sold_products AS SELECT s.id, p.name, s.amount FROM sales AS s JOIN products AS p ON s.product = p.product;
CREATE MACRO taxed(x, rate := 0.2) AS x * (1 + rate);
CREATE MACRO recent(n) AS TABLE SELECT * FROM sales WHERE id >= n;

CREATE VIEW shapes AS SELECT
    tiny::INTEGER AS id,
    CASE tiny % 5
        WHEN 0 THEN union_value(num := maybe)::UNION(num INTEGER, str VARCHAR, kind shade)
        WHEN 1 THEN union_value(str := CASE WHEN tiny > 0 THEN 'row ' || tiny % 7 END)::UNION(num INTEGER, str VARCHAR, kind shade)
        WHEN 2 THEN union_value(kind := shade)::UNION(num INTEGER, str VARCHAR, kind shade)
        WHEN 3 THEN union_value(num := tiny % 3)::UNION(num INTEGER, str VARCHAR, kind shade)
    END AS u,
    CASE WHEN tiny % 6 <> 0 THEN row(maybe, tiny % 2 = 0, shade) END AS pair
FROM typed;
