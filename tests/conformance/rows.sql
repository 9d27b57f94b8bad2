truncate rwc_people, rwc_notes, rwc_log, "rwc_Odd ""Table", rwc_jobs, rwc_own, rwc_full, rwc_partly, rwc_told
  restart identity;
insert into rwc_people (name, age, tags, data, email, mood, born, score, span) values
  ('Ada', 36, '{math,code}', '{"lang": {"first": "en"}, "n": [1, 2]}', 'ada@x', 'happy', '1815-12-10', 9.50, '[1,5)'),
  ('Bob', 17, '{code}', '{"lang": {"first": "de"}}', 'bob@x', 'ok', null, null, '[10,20)'),
  ('Cy, "C"', null, null, null, null, 'sad', null, 1, null),
  ('dora', 52, '{}', '{}', 'dora@x', null, null, 2, null);
insert into "rwc_Odd ""Table" values (1, 'one', 'x'), (2, 'two', 'y');
