// Operations of node-postgres, one line of output each; the same program runs on a PostgreSQL and on sqlml.
const { Client, Pool } = require('pg');
const [host, port, database] = process.argv.slice(2);
const where = { host, port: +port, database, user: 'postgres' };
(async()=>{ const c=new Client({...where}); await c.connect();
const op=async(n,f)=>{ try { console.log(n+'\t'+JSON.stringify(await f())) } catch(e) { console.log(n+'\t'+(e.code||e)) } };
await op('select',async()=>(await c.query('select id,name from parents order by id')).rows);
await op('params',async()=>(await c.query('select id from parents where name=$1 and id=$2',['a',1])).rows);
await op('limit',async()=>(await c.query('select id from parents order by id limit $1',[1])).rows);
await op('named',async()=>(await c.query({name:'x',text:'select name from parents where id=$1',values:[2]})).rows);
await op('rowmode',async()=>(await c.query({text:'select id,name,amount,ok,tags from parents order by id',rowMode:'array'})).rows);
await op('insert',async()=>(await c.query('insert into kids(a,b,pid,note) values ($1,$2,$3,$4) returning a,note',[5000,1,1,'x'])).rows);
await op('tx',async()=>{ await c.query('begin'); await c.query('delete from kids'); await c.query('rollback'); return (await c.query('select count(*)::int as n from kids')).rows });
await op('error',()=>c.query('select nope from parents'));
await op('dates',async()=>(await c.query("select date '2026-03-01' d, timestamp '2026-03-01 10:00:00' t, true b, 1.5::float8 f, '{\"a\":1}'::json j")).rows);
await op('multi',async()=>(await c.query('select 1 as a; select 2 as b')).map(r=>r.rows));
await op('delete',async()=>(await c.query('delete from kids where a=$1',[5000])).rowCount);
await op('pool',async()=>{ const p=new Pool({...where,max:3}); const r=await Promise.all([1,2,3,4,5].map(i=>p.query('select $1::int as i',[i]))); await p.end(); return r.map(x=>x.rows[0].i) });
await c.end(); })();
