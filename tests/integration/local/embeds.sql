-- Tables that belong to each other in every way.
create table clients (id int primary key, name text not null);
create table projects (
  id int primary key,
  name text not null,
  client_id int references clients,
  budget int
);
create table tasks (id int primary key, project_id int not null references projects, title text, hours int);
create table people_of_work (id int primary key, name text, boss_id int references people_of_work);
create table assignments (
  task_id int references tasks,
  person_id int references people_of_work,
  role text,
  primary key (task_id, person_id)
);
create table profiles (person_id int primary key references people_of_work, bio text);
-- Two keys between the same tables.
create table places (id int primary key, city text);
create table trips (
  id int primary key,
  start_id int constraint trips_from references places,
  end_id int constraint trips_to references places
);
create table regions (country text, code text, name text, primary key (country, code));
create table towns (id int primary key, country text, region text, name text,
  foreign key (country, region) references regions (country, code));
create view big_projects as select p.id as number, p.name, p.client_id as customer from projects p where p.budget > 50;
create view big_again as select number, customer as c from big_projects;
create table articles (id int primary key, title text, body text, search tsvector generated always as
  (to_tsvector('english', coalesce(title, '') || ' ' || coalesce(body, ''))) stored);
create schema private;
create table private.notes (id int primary key, client_id int references clients);

create function latest_task(projects) returns setof tasks rows 1 language sql stable as
  'select * from tasks where project_id = $1.id order by id desc limit 1';
create function long_tasks(projects) returns setof tasks language sql stable as
  'select * from tasks where project_id = $1.id and hours > 5';
create function shouted(clients) returns text language sql stable as 'select upper($1.name)';
create function all_projects() returns setof projects language sql stable as 'select * from projects';
create function first_project() returns projects language sql stable as 'select * from projects order by id limit 1';

insert into clients values (1, 'Acme'), (2, 'Zeta'), (3, 'Nobody');
insert into projects values (1, 'Alpha', 1, 100), (2, 'Beta', 1, 10), (3, 'Gamma', 2, 60), (4, 'Loose', null, null);
insert into tasks values (1, 1, 'plan', 3), (2, 1, 'build', 8), (3, 2, 'test', 5), (4, 3, 'ship', 1);
insert into people_of_work values (1, 'Ann', null), (2, 'Ben', 1), (3, 'Cat', 1);
insert into assignments values (1, 1, 'lead'), (2, 1, 'helper'), (2, 2, 'lead'), (3, 3, 'lead');
insert into profiles values (1, 'boss'), (2, null);
insert into places values (1, 'Rome'), (2, 'Oslo');
insert into trips values (1, 1, 2), (2, 2, 1);
insert into regions values ('IT', 'LA', 'Lazio');
insert into towns values (1, 'IT', 'LA', 'Rome'), (2, null, null, 'Atlantis');
insert into articles values (1, 'Cats', 'A cat sat on mats'), (2, 'Dogs', 'The dog barks at cats'), (3, null, 'rats');
grant all on all tables in schema public to service_role;
grant select on clients, projects to anon;
