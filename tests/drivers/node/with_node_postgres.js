// node-postgres: parameters, named statements, pg-cursor, transactions, notifications, its pool. As cases.py: several workers
// at once, `me` in every value, a JSON object in the last line. Where PostgreSQL is comes from the environment.
'use strict';
const assert = require('node:assert/strict');
const { Client, Pool } = require('pg');
const Cursor = require('pg-cursor');

const WORKERS = 5;
const cases = {
  async parameters_and_types(client, me) {
    for (let turn = 0; turn < 10; turn++) {
      const { rows } = await client.query('SELECT $1::int AS n, $2::text AS t, $3::jsonb AS j, now() AS at', [me, `${turn}`, { me }]);
      assert.deepEqual([rows[0].n, rows[0].t, rows[0].j, rows[0].at instanceof Date], [me, `${turn}`, { me }, true]);
    }
    const many = await client.query('SELECT 1 AS a; SELECT $$two$$ AS b');
    assert.deepEqual(many.map((one) => one.rows[0]), [{ a: 1 }, { b: 'two' }]);
    assert.equal((await client.query('')).rows.length, 0);
  },

  async named_statements(client, me) {
    for (let turn = 0; turn < 10; turn++) {
      const name = `sum-${turn % 3}`;
      const { rows } = await client.query({ name, text: `SELECT $1::int + ${turn % 3} AS n`, values: [me * 10] });
      assert.equal(rows[0].n, me * 10 + (turn % 3));
    }
    await assert.rejects(client.query({ name: 'sum-0', text: 'SELECT 2', values: [] }), /must be unique/);
  },

  async queries_in_a_row_without_waiting(client, me) {
    const asked = Array.from({ length: 50 }, (_, n) => client.query('SELECT $1::int AS n', [me * 1000 + n]));
    const seen = (await Promise.all(asked)).map((one) => one.rows[0].n);
    assert.deepEqual(seen, Array.from({ length: 50 }, (_, n) => me * 1000 + n));
  },

  async cursors_read_in_pieces(client, me) {
    const cursor = client.query(new Cursor('SELECT n, $1::int AS who FROM generate_series(1, 500) n', [me]));
    const rows = [];
    for (let piece = await cursor.read(70); piece.length; piece = await cursor.read(70)) rows.push(...piece);
    assert.equal(rows.length, 500);
    assert(rows.every((row) => row.who === me));
    await cursor.close();
    const early = client.query(new Cursor('SELECT n FROM generate_series(1, 500) n'));
    assert.equal((await early.read(10)).length, 10);
    await early.close();
    assert.equal((await client.query('SELECT $1::int AS n', [me])).rows[0].n, me);
  },

  async transactions_and_errors(client, me) {
    await client.query(`DROP TABLE IF EXISTS node_${me}; CREATE TABLE node_${me} (n int primary key)`);
    await client.query('BEGIN');
    await client.query(`INSERT INTO node_${me} VALUES ($1)`, [1]);
    await client.query('SAVEPOINT s');
    await assert.rejects(client.query(`INSERT INTO node_${me} VALUES ($1)`, [1]), { code: '23505' });
    await assert.rejects(client.query('SELECT 1'), { code: '25P02' });
    await client.query('ROLLBACK TO s');
    await client.query('COMMIT');
    await assert.rejects(client.query('SELECT 1 / $1::int', [0]), { code: '22012' });
    await assert.rejects(client.query('SELEKT'), { code: '42601', position: '1' });
    assert.deepEqual((await client.query(`SELECT n FROM node_${me}`)).rows, [{ n: 1 }]);
  },

  async its_pool(_, me) {
    const pool = new Pool({ max: 3 });
    const asked = Array.from({ length: 20 }, (_, n) => pool.query('SELECT $1::int AS n', [me * 100 + n]));
    assert.deepEqual((await Promise.all(asked)).map((one) => one.rows[0].n), Array.from({ length: 20 }, (_, n) => me * 100 + n));
    await pool.end();
  },

  async settings_given_at_connect(_, me) {
    const client = new Client({ statement_timeout: 4000 + me, application_name: `node ${me}`, options: '-c lock_timeout=77ms' });
    await client.connect();
    for (let turn = 0; turn < 5; turn++) {
      const { rows } = await client.query("SELECT name, setting FROM pg_settings WHERE name IN ('statement_timeout', 'application_name', 'lock_timeout') ORDER BY name");
      assert.deepEqual(rows.map((row) => row.setting), [`node ${me}`, '77', `${4000 + me}`]);
    }
    await client.end();
  },

  async large_values(client, me) {
    for (const size of [0, 8191, 8192, 100000, 2000000]) {
      const value = `${me}`.repeat(size);
      const { rows } = await client.query('SELECT $1::text AS a, $2::bytea AS b', [value, Buffer.from(value)]);
      assert.equal(rows[0].a, value);
      assert.equal(rows[0].b.toString(), value);
    }
  },

  async notifications_arrive(client, me) {
    const listener = new Client();
    await listener.connect();
    const seen = [];
    const all = new Promise((resolve) => listener.on('notification', (one) => seen.push(one.payload) === 3 && resolve()));
    await listener.query(`LISTEN node_news_${me}`);
    for (let turn = 0; turn < 3; turn++) await client.query('SELECT pg_notify($1, $2)', [`node_news_${me}`, `${turn}`]);
    await all;
    assert.deepEqual(seen, ['0', '1', '2']);
    await listener.query('UNLISTEN *');
    await listener.end();
  },
};

const failed = new Set();
const within = (promise, name) =>
  Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error(`${name} hangs`)), 20000).unref())]);

async function work(me) {
  const names = Object.keys(cases).filter((name) => process.argv.length < 3 || process.argv.includes(name));
  const turn = Math.floor((me * names.length) / WORKERS);
  const client = new Client();
  await client.connect();
  for (const name of [...names.slice(turn), ...names.slice(0, turn)]) {
    try {
      await within(cases[name](client, me), name);
    } catch (error) {
      failed.add(name);
      console.error(`--- ${name}, worker ${me}\n${error.stack}`);
    }
  }
  await client.end();
}

Promise.all(Array.from({ length: WORKERS }, (_, me) => work(me))).then(() => {
  if (failed.size) {
    console.error(`failed: ${[...failed].join(', ')}`);
    process.exit(1);
  }
  console.log(JSON.stringify({ cases: Object.keys(cases), workers: WORKERS }));
  process.exit(0);
});
